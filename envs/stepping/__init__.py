"""Single Gymnasium environments: made, checked, and stepped here or in processes of their own."""
