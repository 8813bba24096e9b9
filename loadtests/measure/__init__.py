"""How a server is measured: started, asked, timed and weighed, in turns with another."""
