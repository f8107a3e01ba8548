<?php
// Who the visitor is, and what came of the request. With event=1 as an event stream, with page=1 as a page.
session_start();
$who = json_encode([
    'in' => isset($_SESSION['user']),
    'method' => $_SERVER['REQUEST_METHOD'],
    'say' => $_POST['say'] ?? json_decode(file_get_contents('php://input'), true)['say'] ?? $_GET['say'] ?? '',
    'lock' => $_SERVER['FPM_GATE_LOCK'] ?? '',
]);
if (isset($_GET['event'])) {
    header('Content-Type: text/event-stream');
    echo "data: $who\n\n";
} elseif (isset($_GET['page'])) {
    header('Content-Type: text/html');
    echo "<!DOCTYPE html><title>who</title><p id=who>$who</p>";
} else {
    header('Content-Type: application/json');
    echo $who;
}
