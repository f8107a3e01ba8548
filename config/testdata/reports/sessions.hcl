gate "a" {
  listen = "127.0.0.1:9001"
  upstream { address = "127.0.0.1:9000" }

  session {
    cookies = ["", "123", "1e5", "my.app", "a b", "a,b", "a\tb", "a=b", "my_app", 5]
    query   = "PHPSESSID"
    param   = "SESSION-ID"
    handler = "file"
  }
}

gate "b" {
  listen = "127.0.0.1:9002"
  upstream { address = "127.0.0.1:9000" }

  session {
    cookies   = []
    handler   = "files"
    save_path = "tmp"
  }
}

gate "c" {
  listen = "127.0.0.1:9003"
  upstream { address = "127.0.0.1:9000" }
  session { save_path = "/var/lib/php/sessions" }
}

gate "d" {
  listen = "127.0.0.1:9004"
  upstream { address = "127.0.0.1:9000" }
  session { handler = "memcached" }
}

gate "e" {
  listen = "127.0.0.1:9005"
  upstream { address = "127.0.0.1:9000" }
  session {
    handler   = "memcached"
    save_path = "10.0.0.1:11211, 10.0.0.2"
  }
}

gate "f" {
  listen = "127.0.0.1:9006"
  upstream { address = "127.0.0.1:9000" }
  session {
    handler   = "files"
    save_path = "22;/tmp"
  }
}

gate "g" {
  listen = "127.0.0.1:9007"
  upstream { address = "127.0.0.1:9000" }
  session {
    handler   = "redis"
    save_path = "/var/lib/php/sessions"
  }
}
