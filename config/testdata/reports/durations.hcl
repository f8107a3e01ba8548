log {
  slow_wait = "-1s"
}

memcached {
  servers = ["10.0.0.1:11211"]
  timeout = "4s"
  lease   = "2h"
}

gate "www" {
  listen       = "127.0.0.1:9001"
  head_timeout = "0s"
  idle_timeout = "1 minute"

  upstream {
    address        = "127.0.0.1:9000"
    queue_timeout  = "10"
    reuse          = 1
    idle           = "0"
    probe_interval = "1ms"
  }

  lock {
    max_wait      = "-10s"
    expiry        = "0s"
    abandon_after = true
    retry_after   = "1500ms"
  }

  route "slow" {
    expiry      = "-1s"
    retry_after = "0s"
    max_wait    = "1d"
  }
}

gate "b" {
  listen       = "127.0.0.1:9002"
  idle_timeout = "1001h"
  upstream { address = "127.0.0.1:9000" }
}
