<?php
// hold.php: runs until there is a file "go" beside it.
while (!file_exists(__DIR__ . '/go')) {
    usleep(20000);
    clearstatcache();
}
echo "gone\n";
