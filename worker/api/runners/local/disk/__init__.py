"""What the tasks of an account occupy on the disk: counted, limited, given back."""
