<?php
// meet.php?mark=M&n=N: starts no session though a cookie came. It waits until N
// scripts of that mark have been here, itself one of them, for 20 s at most, and
// says whether they have come.
$mark = __DIR__ . '/marks/' . basename($_GET['mark']);
file_put_contents($mark, '.', FILE_APPEND | LOCK_EX);
for ($i = 0; $i < 10000 && filesize($mark) < (int) $_GET['n']; $i++) {
    usleep(2000);
    clearstatcache();
}
header('Content-Type: text/plain');
echo filesize($mark) < (int) $_GET['n'] ? "alone\n" : "met\n";
