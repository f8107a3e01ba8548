memcached {
  servers  = ["10.0.0.1:11211"]
  username = "gate"
  password = ""
  tls {
    ca   = "ca.pem"
    cert = "/etc/ssl/gate.pem"
  }
}

gate "www" {
  listen = "unix:/run/www.sock"
  upstream { address = "127.0.0.1:9000" }
}
