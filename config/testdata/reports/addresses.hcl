admin {
  listen = "systemd:admin"
}

memcached {
  servers = [
    "10.0.0.1:11211",
    "[::1]:11211",
    "::1:11211",
    "memcached",
    "10.0.0.1:011211",
    11211,
  ]
}

gate "a" {
  listen = ":9000"
  upstream { address = "127.0.0.1" }
}

gate "b" {
  listen = "unix:run/b.sock"
  upstream { addresses = ["127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:http"] }
}

gate "c" {
  listen = "systemd:a:b"
  upstream { addresses = "127.0.0.1:9000" }
}

gate "d" {
  listen = "unix:/run/a-path/that-is-much-too-long/for-a-unix-socket/because-the-address-of-a-socket/has-only-108-bytes.sock"
  upstream { addresses = [] }
}

gate "e" {
  listen = 9000
  upstream {
    address   = "127.0.0.1:9000"
    addresses = ["127.0.0.1:9001"]
  }
}

gate "f" {
  listen = "unix:/run/f/"
  upstream { address = "systemd:fpm" }
}

gate "g" {
  listen = "what is this?:9000"
  upstream { address = "unix:/run/\u0000.sock" }
}
