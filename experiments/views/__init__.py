"""What is shown: charts, pictures and tables, each as data first and then drawn."""
