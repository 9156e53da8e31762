"""The methods of the clients, a file for each subject, each written once for both clients."""
