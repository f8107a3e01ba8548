# /etc/fpm-gate/fpm-gate.hcl: the configuration of fpm-gate.
#
#   fpm-gate check --config /etc/fpm-gate/fpm-gate.hcl    shows all errors at once
#   systemctl reload fpm-gate                             takes this file; an invalid one is ignored
#
# As it is here, one gate stands ready before the first PHP-FPM pool, and changes nothing until the
# web server is pointed at it. In nginx: fastcgi_pass unix:/run/fpm-gate/www.sock;
#
# All keys: fpm-gate.hcl(5), and /usr/share/doc/fpm-gate/examples/fpm-gate.hcl

# fpm-gate locks, fpm-gate break, fpm-gate pause, metrics and the page; for root and the group fpm-gate.
admin {
  listen = "unix:/run/fpm-gate/admin.sock"
}

gate "www" {
  # fpm-gate.socket: systemd listens on /run/fpm-gate/www.sock, so that no restart refuses a request.
  listen = "systemd:www"

  upstream {
    # "listen" of the PHP-FPM pool.
    address = "unix:/run/php/php-fpm.sock"

    # pm.max_children of the pool, or below.
    # max_connections = 5

    # Requests wait so long for a PHP-FPM that restarts. "0s" where the web server has another server to go to.
    unreachable_wait = "10s"
  }

  lock {
    # true: no request waits; those that would have are counted and logged. Good for a first day.
    # observe = true
  }
}
