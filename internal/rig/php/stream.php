<?php
// stream.php?ms=N&n=P: P parts (2), N ms (500) apart, each sent at once.
while (ob_get_level() > 0) {
    ob_end_flush();
}
header('Content-Type: text/plain');
header('X-Accel-Buffering: no');
$parts = (int) ($_GET['n'] ?? 2);
for ($i = 1; $i <= $parts; $i++) {
    echo "part $i\n";
    flush();
    if ($i < $parts) {
        usleep(1000 * (int) ($_GET['ms'] ?? 500));
    }
}
