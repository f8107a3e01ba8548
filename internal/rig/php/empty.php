<?php
// empty.php?status=N: a response without a body.
http_response_code((int) ($_GET['status'] ?? 204));
