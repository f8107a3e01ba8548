memcached {
  servers    = ["10.0.0.1:11211", "10.0.0.2:11211"]
  quorum     = true
  key_prefix = "with a space"
}

gate "www" {
  listen = "unix:/run/www.sock"
  upstream { address = "127.0.0.1:9000" }
  lock {
    store            = "redis"
    on_expiry        = "kill"
    on_store_failure = "ignore"
    release_on       = "header"
  }
}
