<?php
// turn.php?mark=M&name=N&ms=K: makes the file marks/M.came.N, and adds one to the session's counter, after it has read
// the request's body and worked for K ms. Adds the line "begin:N:LOCK" to the file marks/M when it has read the counter,
// where LOCK is FPM_GATE_LOCK, and "end:N" before it writes it and closes the session: from then on the next script may
// begin. With wait=1 it makes the file marks/M.started and waits for marks/M.go in between. Prints the count.
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
$note = fn ($line) => file_put_contents($mark, "$line\n", FILE_APPEND | LOCK_EX);
touch("$mark.came." . basename($_GET['name']));
session_start();
$note("begin:{$_GET['name']}:{$_SERVER['FPM_GATE_LOCK']}");
file_get_contents('php://input');
usleep(1000 * (int) $_GET['ms']);
if (isset($_GET['wait'])) {
    touch("$mark.started");
    for ($i = 0; $i < 30000 && !file_exists("$mark.go"); $i++) {
        usleep(2000);
        clearstatcache();
    }
}
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
$note("end:{$_GET['name']}");
session_write_close();
header('Content-Type: text/plain');
echo $_SESSION['count'], "\n";
