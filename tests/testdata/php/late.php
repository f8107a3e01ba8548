<?php
// late.php?n=N[&kind=K&us=N]: answers, and prints after fastcgi_finish_request() what belongs to no other request.
header('Content-Type: text/plain');
echo 'early ', $_GET['n'], "\n";
if (!isset($_GET['kind'])) {
    return;
}
fastcgi_finish_request();
ignore_user_abort(true);
usleep((int) $_GET['us']);
switch ((int) $_GET['kind']) {
    case 0: echo "LATE\n"; flush(); break;
    case 1: echo str_repeat('LATE', 2250); break;
    case 2: echo str_repeat('LATE', 5000); break;
    case 3: echo "X-Late: 1\r\nSet-Cookie: PHPSESSID=late\r\n\r\nLATE"; flush(); break;
    case 4: for ($i = 0; $i < 5; $i++) { echo 'LATE'; flush(); usleep(300); } break;
}
