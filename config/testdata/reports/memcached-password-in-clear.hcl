memcached {
  servers    = ["127.0.0.1:11211", "10.0.0.1:11211"]
  key_prefix = ""
  username   = "gate"
  password   = "hush"
}

gate "www" {
  listen = "unix:/run/www.sock"
  upstream { address = "127.0.0.1:9000" }
}
