<?php
// reads.php?mark=M: makes the file marks/M.first when the first line of its body
// is there, and prints how many lines there were in all.
$body = fopen('php://input', 'rb');
$lines = fgets($body) === false ? 0 : 1;
touch(__DIR__ . '/marks/' . basename($_GET['mark']) . '.first');
while (fgets($body) !== false) {
    $lines++;
}
header('Content-Type: text/plain');
echo "$lines\n";
