<?php
// stuck.php?mark=M&how=HOW: opens its session, makes the file marks/M.started,
// and hangs: in sleep, in a busy loop, in a long regular expression, deaf (it
// catches all that can be caught, without a limit of its own), in a blocking
// read of a socket (&port=P), in a query of MariaDB, or in its shutdown
// function. &limit=S: with this
// time limit, else without one.
ignore_user_abort(true);
set_time_limit((int) ($_GET['limit'] ?? 0));

class Own extends SessionHandler
{
}

if (($_GET['handler'] ?? '') === 'user') {
    session_set_save_handler(new Own(), true);
}
if ($_GET['how'] === 'shutdown') {
    register_shutdown_function(function () {
        sleep(300);
    });
}
session_start();
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
touch(__DIR__ . '/marks/' . basename($_GET['mark']) . '.started');
switch ($_GET['how']) {
    case 'sleep':
        sleep(300);
        break;
    case 'shutdown':
        sleep(300);
        break;
    case 'busy':
        for ($i = 0; ; $i++);
    case 'regex':
        ini_set('pcre.jit', '0');
        ini_set('pcre.backtrack_limit', '1000000000');
        for (;;) {
            preg_match('/^(a+)+$/', str_repeat('a', 22) . 'b');
        }
    case 'deaf':
        for (;;) {
            try {
                usleep(100000);
            } catch (Throwable $limit) {
            }
        }
    case 'query':
        (new PDO('mysql:dbname=app', 'visitor', 'secret'))->query('SELECT SLEEP(300)');
        break;
    case 'read':
        fread(stream_socket_client("tcp://127.0.0.1:{$_GET['port']}", $code, $text, 300), 1);
        break;
}
echo "not stuck\n";
