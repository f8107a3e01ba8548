log {
  level = "info"
}

log {
  level = "debug"
}

admin {
  listen = "127.0.0.1:9001"
}

memcached {
  servers = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.1:11211"]
}

gate "www" {
  listen = "unix:/run/www.sock"
  upstream { address = "127.0.0.1:9000" }
  upstream { address = "127.0.0.1:9002" }

  session { cookies = ["A", "B", "A"] }

  route "api" { path = ["/api/**"] }
  route "api" { path = ["/v2/**"] }
}

gate "www" {
  listen = "unix:/run//./www.sock"
  upstream { address = "127.0.0.1:9000" }
}

gate "shop" {
  listen = "127.0.0.1:9001"
  upstream { address = "unix:/run/www.sock" }
}
