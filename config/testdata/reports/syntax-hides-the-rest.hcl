# What cannot be read is not told to be missing: only the first errors are certain.
gate "www" {
  idle_timeout = "75"
  lock { store = "memcached" }
  listen = "unix:/run/www.sock

  upstream {
    address = "127.0.0.1:9000"
  }
}

memcached {
  servers = ["10.0.0.1:11211"]
}
