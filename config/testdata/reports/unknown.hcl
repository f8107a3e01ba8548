max_wait = "10s"
gates "www" {}
log = { level = "info" }

memcached "one" {
  servers = ["10.0.0.1:11211"]
}

gate {
  listen "unix:/run/www.sock" {}
  slow_wait = "1s"
  upstream = "127.0.0.1:9000"
}

gate "a" "b" {
  listen = "127.0.0.1:9001"
  upstream { address = "127.0.0.1:9000" }
  lock { Max_Wait = "10s" }
  route "x" { store = "memcached" }
  something_else = 1
}

gate "my gate" {
  listen = "127.0.0.1:9002"
  upstream { address = "127.0.0.1:9000" }
  routes "x" {}
}
