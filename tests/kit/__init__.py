"""What tests share: engines that answer by a script, requests by hand, small applications, programs and threads."""
