"""How the data that the package ships was made, one command each."""
