<?php
// once.php?mark=M&say=TEXT&errors=N: reads its body, adds TEXT as a line to the
// file marks/M, logs N errors (0), and its worker is killed before it has
// answered.
file_get_contents('php://input');
file_put_contents(__DIR__ . '/marks/' . basename($_GET['mark']), $_GET['say'] . "\n", FILE_APPEND | LOCK_EX);
for ($i = 0; $i < (int) ($_GET['errors'] ?? 0); $i++) {
    error_log('an error');
}
if (function_exists('posix_kill')) {
    posix_kill(getmypid(), 9);
} else {
    exec('kill -9 ' . getmypid());
}
sleep(60);
