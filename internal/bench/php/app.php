<?php
// app.php?ms=N: a page that takes N ms of the CPU, as a small application's does.
$used = fn() => ($r = getrusage())['ru_utime.tv_sec'] * 1000 + $r['ru_utime.tv_usec'] / 1000;
$end = $used() + (float) $_GET['ms'];
while ($used() < $end) {
    hash('sha256', str_repeat('x', 4096));
}
echo "made\n";
