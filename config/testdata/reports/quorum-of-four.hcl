memcached {
  servers = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211", "10.0.0.4:11211"]
  quorum  = true
}

gate "www" {
  listen = "unix:/run/www.sock"
  upstream { address = "127.0.0.1:9000" }
}
