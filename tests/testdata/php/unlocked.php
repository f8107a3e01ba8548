<?php
// unlocked.php[?read=1][?ms=N]: counts in a file without a lock, as handlers do that do not lock, and writes after
// fastcgi_finish_request() and N more milliseconds, 50 if they are not given.
$file = sys_get_temp_dir() . '/unlocked-' . md5($_COOKIE['PHPSESSID']);
$count = (int) @file_get_contents($file);
header('Content-Type: text/plain');
if (isset($_GET['read'])) {
    echo $count, "\n";
    return;
}
echo "counted\n";
fastcgi_finish_request();
usleep(1000 * (int) ($_GET['ms'] ?? 50));
file_put_contents("$file.new", $count + 1);
rename("$file.new", $file);
