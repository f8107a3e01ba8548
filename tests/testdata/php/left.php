<?php
// left.php?mark=M: counts its session's counter up, and prints a line every 300 ms, for as long as there is a browser.
while (ob_get_level() > 0) {
    ob_end_flush();
}
session_start();
$_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
header('X-Accel-Buffering: no');
for ($i = 0; $i < 200; $i++) {
    echo "line $i\n";
    flush();
    if ($i === 1) {
        touch(__DIR__ . '/marks/' . $_GET['mark']);
    }
    usleep(300000);
}
touch(__DIR__ . '/marks/' . $_GET['mark'] . '.whole');
