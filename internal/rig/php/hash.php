<?php
// hash.php?mb=N: the SHA-256 of what big.php?mb=N sends.
require __DIR__ . '/blocks.inc';
$hash = hash_init('sha256');
foreach (blocks((int) ($_GET['mb'] ?? 1)) as $block) {
    hash_update($hash, $block);
}
header('Content-Type: text/plain');
echo hash_final($hash), "\n";
