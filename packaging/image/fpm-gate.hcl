# The config of the container image. Mount another one over it, or set its variables:
#
#   FPM_GATE_LISTEN     where the web server connects; a unix socket in a volume that both share, or host:port
#   FPM_GATE_UPSTREAM   "listen" of PHP-FPM's pool; in a pod, containers share 127.0.0.1
#   FPM_GATE_LOG        json or text
#
# All keys: config/fpm-gate.hcl in the source, fpm-gate.hcl(5) in the packages.

log { format = env("FPM_GATE_LOG", "json") }

# fpm-gate locks, fpm-gate break and fpm-gate health in this container.
admin {
  listen = "unix:/run/fpm-gate/admin.sock"
  listen_mode = "0600"
}

gate "www" {
  listen = env("FPM_GATE_LISTEN", "unix:/run/fpm-gate/www.sock")

  # The web server's container runs as another user. Only containers with the volume can see the socket.
  listen_mode = "0666"

  upstream {
    address = env("FPM_GATE_UPSTREAM", "127.0.0.1:9000")

    # Requests wait so long for a PHP-FPM whose container restarts.
    unreachable_wait = "10s"
  }
}
