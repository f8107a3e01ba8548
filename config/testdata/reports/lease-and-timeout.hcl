memcached {
  servers = ["10.0.0.1:11211"]
  timeout = "1s"
  lease   = "3s"
}

gate "www" {
  listen = "127.0.0.1:9001"
  upstream { address = "127.0.0.1:9000" }
}
