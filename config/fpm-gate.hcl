# /etc/fpm-gate/fpm-gate.hcl: the configuration of fpm-gate.
#
# This file lists every key once. A commented-out line shows the key's default, so removing its
# "#" changes nothing. The blocks admin, memcached and route exist only if they are written; the
# values that they require are examples here.
#
#   fpm-gate check --config /etc/fpm-gate/fpm-gate.hcl    shows all errors at once
#   systemctl reload fpm-gate                             applies it; an invalid file changes nothing
#
# Durations are strings with a unit: "250ms", "10s", "5m". Sizes are strings, "64KiB" or "1MiB",
# or a number of bytes. Addresses are "unix:/path" or "host:port".
#
# A value may come from elsewhere, as secrets should: env("NAME") is an environment variable,
# env("NAME", "default") one that may be unset; file("/path") is the content of a file, and
# credential("NAME") one of systemd's credentials (LoadCredential= in the unit), both without the
# line break at the end and up to 64 KiB.


# Where the kernel has Landlock, the serving process can open only the files and folders that this file
# names, whatever happens to it. A reload that needs another folder, or that names the first host by
# name instead of by address, fails and says so: restart then, and also to change this key. It has no
# effect on a process that looks at PHP-FPM's workers with rights of its own.
# landlock = true

# The log, on stderr.
log {
  # From the most to the least verbose: trace, debug, info, warn, error. Requests are logged at debug.
  # level = "info"

  # text for people, json for machines.
  # format = "text"

  # A request that waited longer than this for its session is logged, with the request that it
  # waited for. "0s": every request that waited.
  # slow_wait = "1s"

  # A request that takes longer than this is logged while it runs, with what it waits for: up to 10
  # lines a minute, each for another method and path, and then how many were left out. The time in which
  # the body arrives does not count. "0s": none is logged.
  # slow_request = "5s"
}


# Serves metrics, health, the page, and the commands that ask a running gate: locks, why, break, pause,
# resume and health. Anyone who can connect can see and break locks, and pause gates, so listen on a
# socket or on an address that only you can reach.
# admin {
  # A unix socket or a TCP address.
  # listen = "unix:/run/fpm-gate/admin.sock"

  # The mode of a unix socket, as an octal string.
  # listen_mode = "0660"

  # Whether /debug/pprof/ serves Go's profiles.
  # pprof = true
# }


# The memcached servers through which the hosts of a fleet share their locks, for gates whose
# lock has store = "memcached".
# memcached {
  # The same list, in the same order, on all hosts.
  # servers = ["10.0.0.1:11211"]

  # The longest that one round trip may take. Less than a third of the lease.
  # timeout = "250ms"

  # How soon the locks of a gate that died become free. A running gate renews its leases, so this does
  # not limit how long a request may run. From "3s" to "1h".
  # lease = "10s"

  # The prefix of all keys that the gate writes to memcached.
  # key_prefix = "fpm-gate:"

  # Session ids are hashed before they go to memcached. With a secret, a reader of memcached
  # cannot test guesses of ids. The same on all hosts; env("FPM_GATE_SECRET") keeps it out of this file.
  # secret = ""

  # false: each session has its lock on one of the servers. true: the servers are independent copies,
  # and a lease needs a majority of them, so that one of three may die without losing a lock. Needs an
  # odd number of servers, at least 3.
  # quorum = false

  # How often per second a host checks whether locks held by other hosts are free. The limit is for all
  # locks together: if requests wait for many, each lock is checked less often.
  # max_poll_rate = 10000

  # For a memcached started with --auth-file. "": no password.
  # username = ""
  # password = ""

  # For a memcached started with --enable-ssl. An empty block encrypts, and trusts the system's CAs.
  # tls {
    # The CA of the servers' certificates, as a PEM file. "": the system's CAs. A certificate must
    # name its server as in servers.
    # ca = ""

    # This host's certificate and key, as PEM files. "": the servers ask for none.
    # cert = ""
    # key = ""
  # }
# }


# A gate serves one PHP-FPM pool. Write one block for each pool.
gate "www" {
  # Where the web server connects: in nginx, fastcgi_pass unix:/run/fpm-gate/www.sock;
  # "systemd:NAME" takes the socket with FileDescriptorName=NAME from systemd.
  listen = "unix:/run/fpm-gate/www.sock"

  # Of a unix socket. The web server must be able to read and write it, so make it the owner or a member
  # of the group: on Debian that is www-data. "": the user and group that the program runs as. These
  # keys have no effect on a socket from systemd; its unit sets them.
  # listen_mode = "0660"
  # listen_owner = ""
  # listen_group = ""

  # The namespace of session ids: equal ids of two realms are two sessions. The gate's name by
  # default; in a fleet, the same on all hosts.
  # realm = "www"

  # How many connections web servers may have open at once. 0: no limit. When all are taken, the one
  # that has been idle longest is closed for the next.
  # max_conns = 0

  # The most that the params of one request may take: all headers, the URL, and what the web server
  # adds. From "4KiB" to "64MiB".
  # max_params = "256KiB"

  # How long a web server may take to send the params, from their first byte to the last.
  # head_timeout = "10s"

  # How long a kept connection may wait for its next request (fastcgi_keep_conn in nginx).
  # idle_timeout = "75s"

  # The PHP-FPM pool behind the gate.
  upstream {
    # "listen" of its pool configuration. For several PHP-FPMs write addresses = ["10.0.0.5:9000",
    # "10.0.0.6:9000"] instead: each request goes to the least busy one.
    address = "unix:/run/php/php-fpm.sock"

    # How long connecting may take. While PHP-FPM's backlog is full, TCP tries again after 1, 3 and 7
    # seconds, and a unix socket all the time. With several addresses, choose less, so that the gate
    # soon gives up on a host that has vanished.
    # connect_timeout = "10s"

    # How many requests may be in PHP-FPM at once, over all addresses. Set it to pm.max_children or
    # below, and requests queue in the gate instead of PHP-FPM's backlog. Two kinds of scripts take a
    # worker without being counted: those of the config before a reload, and those that go on after
    # fastcgi_finish_request(). 0: no limit.
    # max_connections = 0

    # How long a request waits for one of these connections before it is answered 503. It also bounds
    # the waits for PHP-FPM's return and for the end of "fpm-gate pause".
    # queue_timeout = "30s"

    # How long PHP-FPM may be away, as while it restarts: requests wait while it refuses connections or
    # its socket is gone, and are sent when it is back. After that time they fail at once, until it is
    # back; the web server then fails over, or answers 502. "0s": they always fail at once. Leave it so
    # if the web server has another server to go to, or stale pages.
    # unreachable_wait = "0s"

    # How long a connection over a unix socket is used again, and how long it may lie idle in between. A
    # connection occupies a PHP-FPM worker, busy or not, so these are short. "0s": a connection per
    # request, as always over TCP.
    # reuse = "1s"
    # idle = "50ms"

    # The pool's ping.path, such as "/ping": the gate probes it, and avoids an address that does not
    # answer. "": no probes.
    # ping_path = ""

    # The pool's pm.status_path, such as "/status": the metrics then include PHP-FPM's own figures. "":
    # they do not.
    # status_path = ""

    # How often these two are requested.
    # probe_interval = "5s"
  }

  # Where the gate finds the session id of a request, and how PHP keeps sessions.
  session {
    # The application, which sets cookies, id_pattern, format, locks and release_on as it needs them;
    # keys in this file override that. "adminer", "cacti", "drupal", "icingaweb2", "joomla", "laravel", "magento",
    # "mediawiki", "moodle", "nextcloud", "phpldapadmin", "phpmyadmin", "prestashop", "roundcube", "symfony", "typo3",
    # "woocommerce" or "wordpress"; "fpm-gate check" shows the result. "": none of them.
    # application = ""

    # Names of the session cookie: session.name of php.ini, or what the application calls it. A name may
    # be a pattern, "SESS*": "*" is any characters, "?" is one. The first cookie with an id in it
    # counts.
    # cookies = ["PHPSESSID"]

    # A regular expression, in the syntax of RE2, for cookies that have more than the id in them: the id
    # is its first group, or the whole match if it has none. A cookie that does not match has no id.
    # Match no part that strangers can guess, such as a user's number: they could send it and hold that
    # session. "": the whole value.
    # id_pattern = ""

    # How the id is written in the cookie. plain: as it is. laravel: encrypted by Laravel, with its own keys.
    # format = "plain"

    # Laravel's APP_KEY and APP_PREVIOUS_KEYS. Take them from the environment, as [env("APP_KEY"),
    # env("APP_PREVIOUS_KEYS", "")]. A cookie that none of them decrypts has no id.
    # keys = []

    # Names of parameters in the query string, for PHP with session.use_only_cookies=0.
    # query = []

    # A FastCGI param that the web server sets to the session id, for applications that keep it
    # elsewhere: in nginx, fastcgi_param SESSION_ID $…; with param = "SESSION_ID". It goes before
    # the cookies. "": none.
    # param = ""

    # PHP's session.save_handler, if it is "files" or "memcached"; "any": another one, or several.
    # With "files", ids that this handler refuses take no lock.
    # handler = "any"

    # session.save_path of that handler: for files a folder, "/var/lib/php/sessions", with a depth
    # "2;/var/lib/php/sessions"; for memcached, which needs it, the servers, "10.0.0.1:11211". "": the
    # gate does not watch the folder.
    # save_path = ""

    # memcached.sess_prefix of php.ini, for the handler memcached.
    # key_prefix = "memc.sess.key."

    # Where the gate sees whether PHP has a session open. A script that closes its session early
    # then lets the next request go on at once.
    #   workers    in the PHP-FPM worker that serves the request, for every handler; needs a PHP-FPM
    #              on this host, and rights (docs/WORKERS.md)
    #   files      in save_path, for the handler files
    #   memcached  in save_path, for the handler memcached
    #   auto       in the workers where that works, else in save_path if it is given
    #   none       nowhere: a lock lasts until the script has ended
    # watch = "auto"

    # Whether PHP locks its sessions itself, as files and php-memcached do by default, and phpredis with
    # redis.session.locking_enabled. true: where the gate does not see the session closed, its lock ends
    # with the response, even if the script goes on after fastcgi_finish_request(). false: it ends when
    # such a script has ended, and no script gives its turn away. Without this key, files and memcached
    # count as true, other handlers as false.
    # locks = false

    # PHP's max_input_vars; set both to the same number. PHP reads no cookies beyond it, and a visitor
    # who knows that they differ can hide a session id from one of the two.
    # max_input_vars = 1000

    # A watched script that has not opened its session by then gives its turn to the next request, if
    # PHP locks sessions itself, and was seen to keep that session in save_path or to open it in its
    # worker. "0s": never.
    # open_within = "300ms"
  }

  # How the requests of one session wait for each other.
  lock {
    # local: each host for itself. memcached: all hosts together, through the block memcached.
    # store = "local"

    # The longest wait. Keep it below the web server's own timeout, in nginx 60 seconds
    # (fastcgi_read_timeout). "0s": no request waits.
    # max_wait = "10s"

    # The longest that one request holds the lock, whatever its script does.
    # expiry = "60s"

    # How many requests of one session may wait on one host. The next is answered at once, with 429. Keep
    # it above the number of requests that one browser sends at once: over one HTTP/2 connection 128,
    # unless http2_max_concurrent_streams of nginx says otherwise.
    # max_waiters = 256

    # What to do with a request that has waited for max_wait. reject: answer it with status. pass: let
    # it go on without the lock.
    # on_max_wait = "reject"

    # What to do with a request whose session id was replaced while it waited, as by
    # session_regenerate_id(). redirect: send a browser to the same address with 307, so that it comes
    # back with its new cookie; let other clients go on. pass: let it go on with its old id, whose
    # session PHP may have destroyed.
    # on_rotation = "redirect"

    # What to do with a request that has held the lock for expiry. release: let it run on without the
    # lock. abort: answer it 504, and leave its script to itself. Both leave PHP's own lock to the
    # script. terminate: end the script as max_execution_time would, or, if it is still there
    # terminate_grace later, with its worker. The lock is free when PHP has closed the session, at most
    # 2 seconds after expiry. terminate needs a PHP-FPM on this host, and rights (docs/WORKERS.md);
    # without them it acts as release, and the log and /readyz say what is missing.
    # on_expiry = "release"

    # How long a script may take to end before the gate ends its worker. At most "1.5s".
    # terminate_grace = "1s"

    # What to do when memcached has not answered for two seconds. local: lock within this host, which
    # PHP sees as FPM_GATE_LOCK=local. reject: answer with status. pass: go on without locks. Until
    # then requests wait, no longer than max_wait.
    # on_store_failure = "local"

    # How long a script keeps its lock after its browser has gone.
    # abandon_after = "5s"

    # What to do with a script that is still running then. release: it runs on without the lock.
    # terminate: as for on_expiry.
    # on_abandon = "release"

    # close: the lock is held until PHP closes the session where the gate sees that (watch in the block
    # session), else until the script has ended. end: until the script has ended, in any case. headers:
    # until the headers of the response are there. A script can also release its lock itself, with the
    # header FPM-Gate-Release: 1.
    # release_on = "close"

    # The answer to a rejected request: a status from 400 to 599, and Retry-After in whole seconds.
    # status = 503
    # retry_after = "1s"

    # Adds a Server-Timing header with the wait to responses; browsers show it to developers.
    # server_timing = false

    # true: no request waits. Those that would have are counted and logged. Good for a first day.
    # observe = false
  }

  # Routes make exceptions. The first route that matches a request applies; path, methods and host
  # must all match, and an empty one always does. A route takes every key of lock but store, and
  # inherits from the block lock those that it leaves out.
  #
  # A path that web servers and applications may read in different ways matches no pattern. If such a
  # request meets a route with a path whose methods and host match, no further route is tried, and the
  # block lock applies. Such a path has dot segments, "//", a backslash, "#" or a control character;
  # one of these, "/", "%", "?", a letter or a digit encoded as %XX; or a host before it. SCRIPT_NAME,
  # if it has none of that, is still compared; a SCRIPT_NAME with ".php/" in it makes the path
  # ambiguous too.
  #
  # Everything else is compared letter for letter: /Cart and /cart/ are not /cart. So be strict in the
  # block lock, and let routes loosen it.
  # route "api" {
    # Patterns for SCRIPT_NAME, or for the decoded path of REQUEST_URI: "/a" is just that, "/a/*" has
    # one segment more, "/a/**" is everything below /a.
    # path = []

    # Methods in capitals: ["GET", "HEAD"].
    # methods = []

    # Names of the request's host, HTTP_HOST, without ports: ["shop.example.org"]. nginx chooses a
    # server by the host in the request line, if there is one, but passes the Host header on. If a
    # gate serves several of its server blocks, have nginx pass the name that it chose by:
    # fastcgi_param HTTP_HOST $host;
    # host = []

    # exclusive: one at a time. read: wait for the requests ahead, a running one included, then hold
    # no lock. off: neither wait nor hold.
    # mode = "exclusive"
  # }
}
