<?php
// Prints the size and the SHA-256 of the file that was uploaded as "file", else
// of the request's body as it came.
header('Content-Type: text/plain');
$path = $_FILES['file']['tmp_name'] ?? 'php://input';
$hash = hash_init('sha256');
$size = 0;
$in = fopen($path, 'rb');
while (($part = fread($in, 1 << 16)) !== false && $part !== '') {
    hash_update($hash, $part);
    $size += strlen($part);
}
echo $size, ' ', hash_final($hash), "\n";
