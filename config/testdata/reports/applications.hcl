gate "a" {
  listen = "unix:/run/a.sock"
  upstream { address = "127.0.0.1:9000" }
  session { application = "wordpres" }
}

gate "b" {
  listen = "unix:/run/b.sock"
  upstream { address = "127.0.0.1:9000" }
  session { application = "laravel" }
}

gate "c" {
  listen = "unix:/run/c.sock"
  upstream { address = "127.0.0.1:9000" }
  session {
    application = "laravel"
    keys = [
      "base64:c2hvcnQ=",
      "base64:not-base64-at-all",
      "a-secret-key-that-is-too-long-by-far",
      7,
    ]
  }
}

gate "d" {
  listen = "unix:/run/d.sock"
  upstream { address = "127.0.0.1:9000" }
  session {
    cookies    = ["S*", "*", "a.b*", "*="]
    id_pattern = "^(id"
    format     = "larvel"
  }
}

gate "e" {
  listen = "unix:/run/e.sock"
  upstream { address = "127.0.0.1:9000" }
  session {
    cookies = ["S*"]
    keys    = ["0123456789abcdef"]
  }
}

gate "f" {
  listen = "unix:/run/f.sock"
  upstream { address = "127.0.0.1:9000" }
  session { keys = "base64:AAAAAAAAAAAAAAAAAAAAAA==" }
}
