memcached {
  servers = ["10.0.0.1:11211"]
  quorum  = "maybe"
}

gate "www" {
  listen      = "unix:/run/www.sock"
  listen_mode = 0660
  max_conns   = -1
  max_params  = "64KB"

  upstream {
    address         = "127.0.0.1:9000"
    max_connections = 1.5
  }

  lock {
    max_waiters   = 0
    status        = 200
    server_timing = 1
    observe       = null
  }

  route "a" {
    max_waiters = 1e999
    status      = "six hundred"
  }
}

gate "b" {
  listen      = "unix:/run/b.sock"
  listen_mode = "0999"
  max_conns   = [1]
  max_params  = "1KiB"
  upstream { address = "127.0.0.1:9000" }
}

gate "c" {
  listen     = "unix:/run/c.sock"
  max_params = 1e9
  upstream { address = "127.0.0.1:9000" }
}
