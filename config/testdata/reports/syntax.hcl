log {
  level = "loud"
}

gate "www" {
  listen = unix:/run/www.sock
  upstream {
    address = "127.0.0.1:9000"
  }
}
