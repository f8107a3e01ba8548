gate "www" {
  listen = "unix:/run/fpm-gate/www.sock"
  upstream { address = "unix:/run/php/php-fpm.sock" }
  session {
    handler   = "files"
    save_path = "/var/lib/php/sessions"
    watch     = "memcached"
  }
  lock {
    terminate_grace = "3s"
    on_abandon      = "abort"
  }
}

gate "shop" {
  listen = "unix:/run/fpm-gate/shop.sock"
  upstream { address = "unix:/run/php/shop.sock" }
  session { watch = "worker" }
}

gate "blog" {
  listen = "unix:/run/fpm-gate/blog.sock"
  upstream { address = "unix:/run/php/blog.sock" }
  session { watch = "files" }
}
