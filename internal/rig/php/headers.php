<?php
// headers.php?status=N&bytes=B: a status, three cookies, a header that comes
// twice, and one of B bytes.
http_response_code((int) ($_GET['status'] ?? 201));
setcookie('first', 'one');
setcookie('second', 'two words', ['httponly' => true]);
setcookie('third', 'three', ['samesite' => 'Lax']);
header('X-Rig: a');
header('X-Rig: b', false);
header('X-Long: ' . str_repeat('x', (int) ($_GET['bytes'] ?? 0)));
header('Content-Type: text/plain; charset=utf-8');
echo "headers\n";
