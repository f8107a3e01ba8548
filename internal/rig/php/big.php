<?php
// big.php?mb=N: N MB of noise, always the same; hash.php?mb=N knows its SHA-256.
require __DIR__ . '/blocks.inc';
header('Content-Type: application/octet-stream');
foreach (blocks((int) ($_GET['mb'] ?? 1)) as $block) {
    echo $block;
}
