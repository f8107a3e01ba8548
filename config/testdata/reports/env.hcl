memcached {
  servers = ["10.0.0.1:11211", env("FPM_GATE_TEST_UNSET")]
  secret  = env("FPM_GATE_TEST_UNSET", "a", "b")
}

gate "www" {
  listen      = "unix:/run/${env("FPM_GATE_TEST_UNSET")}.sock"
  listen_mode = environ("MODE")
  realm       = REALM
  max_conns   = env()
  max_params  = env("FPM_GATE_TEST_UNSET", "much")
  upstream { address = "127.0.0.1:9000" }
}
