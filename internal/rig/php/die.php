<?php
// die.php?kb=N: sends N KB (100), then the worker is killed. With N = 0 it dies
// before it has sent anything.
while (ob_get_level() > 0) {
    ob_end_flush();
}
$kb = (int) ($_GET['kb'] ?? 100);
if ($kb > 0) {
    header('Content-Type: text/plain');
    echo str_repeat(str_repeat('x', 1023) . "\n", $kb);
    flush();
}
if (function_exists('posix_kill')) {
    posix_kill(getmypid(), 9);
} else {
    exec('kill -9 ' . getmypid());
}
sleep(60);
