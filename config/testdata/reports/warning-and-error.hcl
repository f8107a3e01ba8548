gate "a" {
  listen = "127.0.0.1:9001"
  upstream { address = "127.0.0.1:9000" }
  lock {
    max_wait = "2m"
    expiry   = "2x"
  }
}
