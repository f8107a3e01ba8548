gate "www" {
  listen = "unix:/run/www.sock"
  listen = "unix:/run/other.sock"
  realm  = ""
  upstream { address = "127.0.0.1:9000" }
}
