<?php
// stderr.php?say=TEXT: says it on stderr, which belongs in the web server's
// error log, in the middle of a response.
echo "before\n";
error_log($_GET['say'] ?? 'said on stderr');
echo "after\n";
