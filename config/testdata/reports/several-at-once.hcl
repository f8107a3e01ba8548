# A bit of everything, as it comes: all of it must be told at once.
log {
  level = "verbose"
}

memcached {
  servers = ["10.0.0.1:11211", "10.0.0.2"]
  lease   = "500ms"
}

gate "www" {
  lissten = "unix:/run/fpm-gate/www.sock"

  upstream {
    address         = "/run/php/php-fpm.sock"
    connect_timeout = 10
  }

  lock {
    on_max_wait = "rejct"
  }
}
