<?php
// wait.php?mark=M: makes the file marks/M.started, and ends once marks/M.go is
// there; marks/M.ended says that it has. With session=1 it holds its session
// meanwhile and adds one to its counter; with flush=1 the first half of its
// response goes out before it waits; with header=NAME:VALUE that goes with it.
ignore_user_abort(!isset($_GET['abortable']));
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
if (isset($_GET['session'])) {
    session_start();
    $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
}
header('Content-Type: text/plain');
header('X-Accel-Buffering: no');
if (isset($_GET['header'])) {
    header($_GET['header']);
}
if (isset($_GET['flush'])) {
    while (ob_get_level() > 0) {
        ob_end_flush();
    }
    echo "first\n";
    flush();
}
touch("$mark.started");
for ($i = 0; $i < 30000 && !file_exists("$mark.go"); $i++) {
    usleep(2000);
    clearstatcache();
}
touch("$mark.ended");
echo "last\n";
