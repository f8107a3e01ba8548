admin {}

memcached {
  quorum = true
}

gate "www" {
  upstream {}
}

gate "shop" {}
