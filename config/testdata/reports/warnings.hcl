admin {
  listen      = "10.0.0.1:9180"
  listen_mode = "0600"
}

memcached {
  servers = ["10.0.0.1:11211"]
}

gate "a" {
  listen       = "systemd:fpm-gate.socket"
  listen_mode  = "0600"
  listen_group = "www-data"
  head_timeout = "5m"
  upstream { address = "127.0.0.1:9000" }

  lock {
    store    = "memcached"
    max_wait = "1m"
  }
  route "short" { max_wait = "2s" }
  route "long" { max_wait = "29500ms" }
  route "longer" { max_wait = "90s" }
}

gate "b" {
  listen = "127.0.0.1:9001"
  upstream {
    address       = "127.0.0.1:9000"
    queue_timeout = "1m"
  }
}

# It waits no longer than queue_timeout, which is 30s.
gate "waits" {
  listen = "127.0.0.1:9003"
  upstream {
    address          = "127.0.0.1:9000"
    unreachable_wait = "40s"
  }
}

gate "c" {
  listen = "127.0.0.1:9002"
  upstream { address = "127.0.0.1:9000" }
  lock { max_wait = "30s" }
}

# Two gates of one realm, of which one has its locks elsewhere: they do not see each other's.
gate "shop" {
  listen = "unix:/run/shop.sock"
  realm  = "c"
  upstream { address = "unix:/run/php.sock" }
  lock { store = "memcached" }
}
