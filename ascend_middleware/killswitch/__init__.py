"""The kill switch: what is ordered, whether a request may go on, and how commands are received."""
