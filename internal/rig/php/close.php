<?php
// close.php?ms=N&how=HOW: opens its session, gives it back early and works on
// for N ms. HOW is close (session_write_close), abort, read (read_and_close), or
// header: the session stays open and FPM-Gate-Release tells the gate.
$how = $_GET['how'] ?? 'close';
session_start(['read_and_close' => $how === 'read']);
$count = ($_SESSION['count'] ?? 0) + 1;
if ($how !== 'read') {
    $_SESSION['count'] = $count;
}
if ($how === 'close') {
    session_write_close();
} elseif ($how === 'abort') {
    session_abort();
} elseif ($how === 'header') {
    header('FPM-Gate-Release: 1');
}
header('Content-Type: text/plain');
while (ob_get_level() > 0) {
    ob_end_flush();
}
echo $count, "\n";
flush();
usleep(1000 * (int) ($_GET['ms'] ?? 0));
echo "end\n";
