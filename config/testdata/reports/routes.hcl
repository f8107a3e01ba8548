gate "www" {
  listen       = "unix:/run/www.sock"
  listen_owner = "www data"
  realm        = ""
  upstream {
    address   = "127.0.0.1:9000"
    ping_path = "ping"
  }

  route "a" {
    path    = ["cart", "/a/*/b", "/a*", "/a/**/*", "/a?b=c", "/ok/*", "/ok/**", "/**", "/"]
    methods = ["get", "POST", "PO ST", ""]
    host    = ["shop.example.org:80", "*.example.org", "", "SHOP.example.org", "shop.example.org"]
    mode    = "none"
  }

  route "b/c" {
    path = "/b"
  }
}
